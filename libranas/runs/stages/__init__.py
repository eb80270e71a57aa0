"""The work of each rule, from the files of a run to the files of a run; no Snakemake here."""
