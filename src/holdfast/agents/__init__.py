"""The built-in agents, and the models they run on."""
