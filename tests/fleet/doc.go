// Package fleet holds the tests of a whole fleet: ten thousand disks against the
// EC2 simulator with EC2's throttling, a real Temporal server, the real worker's
// workflows and activities, and a queue for every node, served by stubs.
package fleet
