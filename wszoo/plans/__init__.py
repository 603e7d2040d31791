"""Plans: engines without their weights, and back."""
