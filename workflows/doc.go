// Package workflows holds what a user wants done to a disk, as Temporal
// workflows: steps only. It imports the contract, the pure sizing functions and
// the Temporal SDK; every touch of EC2 or of a node is an activity.
//
// Every operation on a disk has the workflow id disk/<id>: the id is the lock.
// An expected "no" ends the workflow completed, with a typed refusal in its
// result; only what nobody expected fails it.
//
// How an operation is built:
//   - begin and finish (operation.go) validate, receive signals all the time,
//     undo on failure and lose no pressure signal that comes late.
//   - a step (step.go) is an idempotent function. Pause, cancel and rehome take
//     effect between steps, and inside the calls that take long.
//   - a call (call.go) is an activity. A node that does not answer is waited for
//     or followed to where the disk is now.
//   - room (room.go) is made for a filling pool beside the running steps.
package workflows
