"""The intermediate representation: the unit, the models in it, the objective, and what a pass is."""
