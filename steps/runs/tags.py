"""Names of the run tags and artifacts by which the steps recognise each other's runs."""

# Tags of MLflow
COMMIT_TAG = "mlflow.source.git.commit"
ENTRY_POINT_TAG = "mlflow.project.entryPoint"
NAME_TAG = "mlflow.runName"
NOTE_TAG = "mlflow.note.content"  # the description on a run's page, Markdown
PARENT_TAG = "mlflow.parentRunId"

# Tags of this project
CREATED_MODEL_TAG = "created_model"  # the registered model that the run created
ERROR_TAG = "error"  # the cause of a failure, one line
FINGERPRINT_TAG = "fingerprint"  # of the step, its parameters, its code and its environment: equal runs are reused
PROCESS_TAG = "process"  # the machine, process ID and start time of the process that works on the run
REJECTED_TAG = "rejected"  # "true" on a run that FAILED by its verdict and keeps its results
MODEL_URI_TAG = "model_uri"  # the model that a wrap step logged
SUMMARY_TAG = "summary"  # the result of a finished step, one line
VERSION_TAG = "registered_version"  # the version that a wrap step registered, "name/version"

MAX_TAG = 5000  # characters of a tag's value that every tracking store keeps

# Artifacts that more than one step reads
EVALUATION = "evaluation.json"
