"""Judge models: what the gates say of each, and which version becomes the champion."""
