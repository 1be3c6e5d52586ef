"""The HTTP server of `serve`: OpenAI's, Anthropic's and MLflow's endpoints over one loaded model."""
