"""OpenAI's requests and responses: parse the fields, build the answers."""
