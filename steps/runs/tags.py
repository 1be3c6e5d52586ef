"""The names of the run tags and artifacts by which the steps know each other."""

# MLflow's own
COMMIT_TAG = "mlflow.source.git.commit"
ENTRY_POINT_TAG = "mlflow.project.entryPoint"
NAME_TAG = "mlflow.runName"
NOTE_TAG = "mlflow.note.content"  # the description on a run's page, Markdown
PARENT_TAG = "mlflow.parentRunId"

# this project's
CREATED_MODEL_TAG = "created_model"  # the registered model that the run had to create
ERROR_TAG = "error"  # the cause of a failure, one line
FINGERPRINT_TAG = "fingerprint"
PROCESS_TAG = "process"  # host, process ID and its start, of who works on the run
REJECTED_TAG = "rejected"  # on a run that failed by its verdict, and whose results stand
MODEL_URI_TAG = "model_uri"
SUMMARY_TAG = "summary"  # what a finished step came to, one line
VERSION_TAG = "registered_version"  # "name/version"

# artifacts that more than one step reads
EVALUATION = "evaluation.json"
