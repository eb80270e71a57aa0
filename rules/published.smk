# Published tables of trained networks -> how every combiner fares on them, beside the paper's numbers.
from libranas.published.tables import find_tables, scores_file
from libranas.runs.workflow import workflow_folder

TABLES = find_tables(config["published"]["tables"])
if not TABLES:
    raise WorkflowError(
        f"published.tables: {config['published']['tables']} has no table SPACE-TASK.csv or zc_SPACE.json of a published benchmark.\n"
        "  -> docs/published-benchmarks.md says which ones, and where they are."
    )


def scores_folder():
    """published.scores, in the working directory or, as the scores that are shipped, with the workflow."""
    folder = config["published"]["scores"]
    found = [place for place in (folder, workflow_folder() / (folder or "")) if folder and os.path.isdir(place)]
    if folder and not found:
        raise WorkflowError(
            f"published.scores: there is no folder {folder}.\n  -> Name one with files SPACE.csv, or set it to null."
        )
    return found[0] if found else None


SCORES = scores_folder()


rule published_table:
    input:
        table=lambda wildcards: given(file_and_task(TABLES[wildcards.table])[0]),
        scores=lambda wildcards: given(scores_file(SCORES, wildcards.table)),
    output:
        judged=out("judged_table"),
        table3=out("table3_table"),
        table4=out("table4_table"),
    log:
        log_of("published/{table}"),
    benchmark:
        times_of("published/{table}")
    wildcard_constraints:
        table="|".join(TABLES),
    resources:
        mem_mb=grows(2000),
        runtime=grows(240),
    params:
        version=stage_version("libra"),
        config=part("seed", published="labels splits methods"),
        files=lambda wildcards, input: states(input.table, scores_file(SCORES, wildcards.table)),
    script:
        "../scripts/published_table.py"


rule published:
    input:
        judged=expand(out("judged_table"), table=TABLES),
        table3=expand(out("table3_table"), table=TABLES),
        table4=expand(out("table4_table"), table=TABLES),
    output:
        judged=out("judged"),
        means=out("means"),
        table1=out("table1"),
        table3=out("table3"),
        table4=out("table4"),
        labels=out("labels"),
    log:
        log_of("published"),
    benchmark:
        times_of("published")
    localrule: True
    params:
        version=stage_version("libra"),
        tables=list(TABLES),
    script:
        "../scripts/published.py"
