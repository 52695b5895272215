"""What the operating system allows, and what it exposes: open files, and who may read `.env`."""
