#!/bin/bash
# HOST COMMAND...: runs a shell command on a node of this Slurm allocation, as ssh would.
host=$1
shift
exec srun --overlap --nodes 1 --ntasks 1 --mpi none --nodelist "$host" sh -c "$*"
