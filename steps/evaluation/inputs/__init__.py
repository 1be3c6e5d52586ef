"""What an evaluation reads: questions, a text to score, prompts to time, and how much to measure."""
