"""What the job runs on the cluster's driver: `mlflow run` of the project that this file is part of.

It stands alone: of this project's code nothing is imported, and of other packages only mlflow, which is a library of
the job. MLflow hands the driver's credentials on to the processes that it starts.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line, whose parameters are the job's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entry-point", default="main")
    parser.add_argument("-P", dest="parameters", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--tracking-uri", default="databricks")
    parser.add_argument("--registry-uri", default="", help="empty: as MLflow has it for the tracking URI")
    parser.add_argument("--experiment-name", default="", help="made where there is none")
    parser.add_argument("--experiment-id", default="")
    parser.add_argument("--run-id", default="", help="the run that this is; made where it is empty")
    parser.add_argument("--env-manager", default="uv")
    parser.add_argument("--uc-schema", default="", help="catalog.schema of registered models with a short name")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the entry point from a copy of the project on the driver's own disk; an exit code."""
    given = parse(argv)
    root = Path((lambda: None).__code__.co_filename).resolve().parents[2]  # not every runtime sets __file__
    os.environ["MLFLOW_TRACKING_URI"] = given.tracking_uri
    for name, value in (("MLFLOW_REGISTRY_URI", given.registry_uri), ("PHI_MLFLOW_UC_SCHEMA", given.uc_schema)):
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
                given.entry_point,
                parameters=dict(pair.split("=", 1) for pair in given.parameters),
                experiment_name=given.experiment_name or None,
                experiment_id=given.experiment_id or None,
                run_id=given.run_id or None,
                env_manager=given.env_manager,
            )
        except ExecutionException as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__" and (code := main(sys.argv[1:])):
    sys.exit(code)  # an exit with 0 would be a failure to a runtime that takes SystemExit for one
