"""Sites where the networks see an atom or a vacancy."""
