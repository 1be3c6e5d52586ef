"""This project as a Databricks job: the cluster, the project's files in the workspace, the job, and what it runs."""
