"""Build the package with the workflow, which lies at the top of the repository, as `libranas/workflow`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

#: Files of the workflow; `benchmarks/published/scores` is what config/published.yaml reads.
WORKFLOW = (
    "Snakefile",
    "config.yaml",
    "rules/*.smk",
    "scripts/*.py",
    "report/*.rst",
    "config/*",
    "profiles/*/*",
    "envs/*",
    "benchmarks/published/scores/*.csv",
)


class BuildWithWorkflow(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source in self.workflow_files():
                target = Path(self.build_lib, "libranas", "workflow", source)
                self.mkpath(str(target.parent))
                self.copy_file(source, str(target))

    def get_source_files(self) -> list[str]:
        """Return what an sdist holds."""
        return [*super().get_source_files(), *self.workflow_files()]

    def workflow_files(self) -> list[str]:
        return [str(path) for pattern in WORKFLOW for path in sorted(Path().glob(pattern)) if path.is_file()]


setup(cmdclass={"build_py": BuildWithWorkflow})
