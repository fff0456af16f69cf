// Package contract holds everything two Ebb processes must agree on: names of
// queues, workflows, activities, signals and queries, their inputs and results,
// typed refusals, and the validation of every string that comes from outside.
//
// It contains no behaviour of its own and imports only the Temporal SDK, so the
// workflows, the control worker, the node agent and the command can all use it
// without reaching each other.
package contract
