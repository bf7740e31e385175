"""What pyproject.toml cannot say: `conf/`, which lies at the top of a checkout, is `jobs/conf/` of what is installed.

`jobs/config/option_folders.py` finds it in either place.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pipeline*", "jobs*"]), "jobs.conf"],
    package_dir={"jobs.conf": "conf"},
    package_data={
        "jobs.archive": ["*.css", "*.js"],
        "jobs.conf": ["*.yaml", "*/*.yaml", "wildcards/*.txt"],
        "jobs.gallery": ["page/*"],
        "pipeline.demo": ["**/*.json", "**/*.safetensors", "**/*.txt", "*.md"],
        "pipeline.prompting": ["**/*.toml"],
        "pipeline.selection": ["*.toml"],
        "pipeline.weights": ["configs/**/*"],
    },
    exclude_package_data={"jobs.conf": ["local/*"]},  # settings of the machine on which it is built
    py_modules=["run"],
)
