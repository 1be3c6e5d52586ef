"""The one part of monitoring that talks to MLflow's tracking server and registry."""
