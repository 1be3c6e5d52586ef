"""What the job runs on the cluster's driver: `mlflow run` of the project that this file belongs to.

The file stands alone, because the driver has no package of this project installed. It imports only mlflow, which is a
library of the job. MLflow passes the driver's credentials on to the processes that it starts.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line, which is the list of parameters of the job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entry-point", default="main")
    parser.add_argument("-P", dest="parameters", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--tracking-uri", default="databricks")
    parser.add_argument("--registry-uri", default="", help="default: MLflow's own for the tracking URI")
    parser.add_argument("--experiment-name", default="", help="created if it does not exist")
    parser.add_argument("--experiment-id", default="")
    parser.add_argument("--run-id", default="", help="an existing run to work in; default: a new run")
    parser.add_argument("--env-manager", default="uv")
    parser.add_argument("--uc-schema", default="", help="catalog.schema of registered models with a short name")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the entry point from a copy of the project on the driver's own disk; return the exit code."""
    options = parse(argv)
    root = _this_file().parents[2]
    os.environ["MLFLOW_TRACKING_URI"] = options.tracking_uri
    for name, value in (("MLFLOW_REGISTRY_URI", options.registry_uri), ("PHI_MLFLOW_UC_SCHEMA", options.uc_schema)):
        if value:
            os.environ[name] = value
    import mlflow
    from mlflow.exceptions import ExecutionException

    with tempfile.TemporaryDirectory(prefix="phi-mlflow-") as folder:
        project = Path(folder) / "project"
        shutil.copytree(root, project, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        try:
            mlflow.run(
                str(project),
                options.entry_point,
                parameters=dict(pair.split("=", 1) for pair in options.parameters),
                experiment_name=options.experiment_name or None,
                experiment_id=options.experiment_id or None,
                run_id=options.run_id or None,
                env_manager=options.env_manager,
            )
        except ExecutionException as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def _this_file() -> Path:
    """Return the path of this file. Some runtimes run it without setting __file__, but its code knows the path."""
    return Path(_this_file.__code__.co_filename).resolve()


# Some runtimes treat every SystemExit as a failure of the job, even with the exit code 0. So 0 is not raised.
if __name__ == "__main__" and (code := main(sys.argv[1:])):
    sys.exit(code)
