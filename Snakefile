# libranas: from images and a budget to a trained vision transformer and a report about it.
#
#   snakemake --cores all                                     the default experiment (config.yaml)
#   snakemake --cores all --configfile config/cifar10.yaml    another preset
#   snakemake --cores all libra                               up to one stage
#
# docs/architecture.md shows how the stages hang together.
from snakemake.utils import min_version

min_version("9.19")


# Used only with `--software-deployment-method apptainer`; docs/containers.md says how it is built.
container: "containers/libranas.sif"


include: "rules/common.smk"
include: "rules/prepare.smk"
include: "rules/latency.smk"
include: "rules/sample.smk"
include: "rules/score.smk"
include: "rules/benchmark.smk"
include: "rules/libra.smk"


for name in filter(asked_for, OPTIONAL):

    include: f"rules/{name}.smk"


include: "rules/report.smk"


rule all:
    default_target: True
    input:
        report=out("report"),
        # A deleted shard would not be missed while the merged file is there.
        shards=rules.merge.input.shards,


# The rules of a workflow that uses this one are not known yet.
if workflow.modifier.is_main_snakefile():
    check_targets()
check_space()


onstart:
    begin()


onsuccess:
    end()
    if os.path.exists(place("report")):
        print(f"Report: {place('report')}")


onerror:
    end()
