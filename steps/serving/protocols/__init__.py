"""OpenAI's Responses API and Anthropic's Messages API in terms of chat requests and their chunks."""
