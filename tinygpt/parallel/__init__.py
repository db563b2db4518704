"""How a step uses all cores of a machine and all machines of a job, and what it will need."""
