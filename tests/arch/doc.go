// Package arch holds the tests of how the code is built: who may import whom,
// what the data plane must never be able to do, and that every package says what
// it is. It has no code of its own.
package arch
