"""What the operating system allows and exposes: open files, memory, who may read `.env`."""
