"""Simulation: relaxation, molecular dynamics, knock-on damage."""
