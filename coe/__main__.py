"""``python -m coe``: the command line."""

from coe.services.cli import app

if __name__ == "__main__":
    app(prog_name="coe")
