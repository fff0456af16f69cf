// Package stubnode implements the node activities of the contract in memory:
// headers, pools and moves without a kernel. It lets workflows run from end to
// end in milliseconds, and checks on the way what a node would refuse or what
// would lose data: a volume deleted while a disk needs it, two nodes with one
// disk, a commit that was never copied.
//
// It is a model for tests. What a real node does is tested in tests/node and
// tests/e2e.
package stubnode
