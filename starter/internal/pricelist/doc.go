// Package pricelist reads EBS's prices out of AWS's public price list: the CSV
// file of a region that anybody may download, without credentials. It is read as
// it comes, row by row; no more than one row is held. What is missing or
// contradictory in it is refused, never guessed.
//
// It makes a price.Book of it and keeps that in a file. It knows nothing of
// terminals, and nothing of the AWS SDK.
package pricelist

import "errors"

// What can be wrong. Errors of this package wrap one of them, or are the
// system's about a file.
var (
	// ErrURL: the address may not be used.
	ErrURL = errors.New("bad address of a price list")
	// ErrNoList: the server has no such list, or does not give it.
	ErrNoList = errors.New("no price list there")
	// ErrDownload: the server did not answer, or stopped in the middle. Nothing
	// was changed; trying again is safe.
	ErrDownload = errors.New("the price list could not be downloaded")
	// ErrFormat: what came is not a price list of Amazon EC2 in CSV.
	ErrFormat = errors.New("not a price list of Amazon EC2 in CSV")
	// ErrPrices: it is a price list, but prices are missing or contradict each
	// other.
	ErrPrices = errors.New("the price list is refused")
)
