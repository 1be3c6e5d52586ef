"""What the wrap steps make of a checkpoint or a converted folder, before MLflow logs it."""
