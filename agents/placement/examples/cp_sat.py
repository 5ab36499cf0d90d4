"""The fewest boxes, by OR-tools' CP-SAT: an instance on standard input, its answer as JSON on standard output."""
import json
import sys
import time

from ortools.sat.python import cp_model

instance = json.load(sys.stdin)
machines, size, count = instance["machines"], instance["box"]["capacity"], instance["boxes"]
model = cp_model.CpModel()
used = [model.new_bool_var(f"u{b}") for b in range(count)]
on = [[model.new_bool_var(f"x{m}_{b}") for b in range(count)] for m in range(len(machines))]
for row in on:
    model.add_exactly_one(row)
for kind, capacity in size.items():
    # In mebibytes: the solver's sums stay small, and a need is rounded up as the capacity is exact.
    unit = 1 if capacity < 1 << 30 else 1 << 20
    for b in range(count):
        needs = [(-(-m["needs"].get(kind, 0) // unit), row[b]) for m, row in zip(machines, on)]
        model.add(sum(need * var for need, var in needs) <= capacity // unit * used[b])
services = {}
for m, machine in enumerate(machines):
    services.setdefault(machine["group"], []).append(m)
for members in services.values():
    for b in range(count):
        model.add_at_most_one(on[m][b] for m in members)
for b in range(count - 1):
    model.add(used[b] >= used[b + 1])
model.minimize(sum(used))
solver = cp_model.CpSolver()
solver.parameters.max_time_in_seconds = float(sys.argv[1])
solver.parameters.num_workers = 2
start = time.time()
status = solver.solve(model)
found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
print(json.dumps({
    "used": round(solver.objective_value) if found else None,
    "least": round(solver.best_objective_bound),
    "seconds": round(time.time() - start, 2),
    "proved": status == cp_model.OPTIMAL,
}))
