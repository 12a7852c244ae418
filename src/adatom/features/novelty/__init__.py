"""How far a frame, or a part of it, lies from the training frames."""
