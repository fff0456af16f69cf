// Package ec2 implements the control activities of the contract against EC2.
//
// Every activity reads, decides, acts and verifies, so that it may run twice, or
// run again after it did its work and reported failure. Volumes are found by
// their tags; only CreateVolume has a client token, everything else describes
// first. Nothing is deleted unless its tags say whose it is.
//
// What EC2 answers is turned into a typed refusal in one place (translate); all
// other errors stay retryable. It is not a general EC2 client: API names the
// calls it uses.
package ec2
