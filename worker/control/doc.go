// Package control runs a Temporal worker on the queue ebb-control: it connects,
// makes sure that Ebb's search attributes exist, serves until it is told to
// stop, and tells its state over HTTP. What it serves is given to it: it knows
// neither workflows nor EC2.
package control
