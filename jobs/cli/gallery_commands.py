"""Commands of `darkroom` for looking at pictures in a browser: `gallery`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobs.terminal import OUTPUT_DIR, OutputDir, print_line

app = typer.Typer()


@app.command()
def gallery(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of this machine; 0 takes a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address and open no browser.")] = False,
    make: Annotated[
        bool, typer.Option("--make", help="Let the page start runs that make more pictures, one at a time.")
    ] = False,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Look at pictures, compare and rate them, on a page in the browser that follows runs while they go on.

    The page is for this machine only, behind the address that is printed. It deletes nothing.

    Examples:

        darkroom gallery

        darkroom gallery --output-dir /data/postcards --port 8800 --no-browser
    """
    from jobs.gallery.serving import serve

    def told(line: str) -> None:
        print_line(line)
        sys.stdout.flush()

    serve(output_dir, port, may_make=make, opens_browser=not no_browser, told=told)
