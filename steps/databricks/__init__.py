"""This project as a Databricks job: its options, the cluster, the files in the workspace, the job, what it runs."""
