"""Units that ASE does not have."""

A2_PER_BARN = 1e-8  # Å² in one barn: 1 barn = 10⁻²⁸ m² by definition
ELECTRONS_PER_S_PER_PA = 1e-12 / 1.602176634e-19  # elementary charge, C: SI definition
