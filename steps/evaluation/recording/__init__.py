"""The one part of evaluation that talks to MLflow's tracking server and registry."""
