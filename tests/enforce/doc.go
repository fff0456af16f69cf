// Package enforce lets Ebb hold real disks at their target by itself: real nodes,
// agents, worker, Temporal Schedule and policy in enforce mode, while programs fill
// the disks and delete from them. Nobody resizes anything by hand.
//
// EBB_TEST_FULL=1 runs ten disks for twenty minutes, else two for about three.
package enforce
