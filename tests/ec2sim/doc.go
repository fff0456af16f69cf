// Package ec2sim is an EC2 and EBS simulator: a server that speaks the EC2
// query protocol to the unmodified AWS SDK, with the states, lags, limits,
// client tokens, throttling and eventual consistency of Elastic Block Store,
// and with faults that a test injects.
//
// A volume is a sparse file. A [Plug] carries attachments to something that
// can use the file as a block device (the bench's nodes); without one the
// simulator only keeps the books. All state lies in one directory and
// survives a restart.
//
// It is not a security boundary (signatures are not verified), not a model of
// EBS performance, and knows only the actions that block storage needs. See
// README.md for what is modelled after which source.
package ec2sim
