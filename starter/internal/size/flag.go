package size

import (
	"strconv"
	"time"
)

// The types below are flag values: cobra shows their Type in the help and their
// errors as usage errors.

// BytesFlag holds a size in bytes; 0 until set.
type BytesFlag int64

// Set parses s.
func (f *BytesFlag) Set(s string) error {
	v, err := Parse(s)
	if err == nil {
		*f = BytesFlag(v)
	}
	return err
}

// Type names the value in help.
func (f *BytesFlag) Type() string { return "size" }

func (f *BytesFlag) String() string {
	if *f == 0 {
		return ""
	}
	return Bytes(int64(*f))
}

// GiBFlag holds a size in whole GiB; 0 until set.
type GiBFlag int64

// Set parses s.
func (f *GiBFlag) Set(s string) error {
	v, err := ParseGiB(s)
	if err == nil {
		*f = GiBFlag(v)
	}
	return err
}

// Type names the value in help.
func (f *GiBFlag) Type() string { return "size" }

func (f *GiBFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*f), 10) + "GiB"
}

// RateFlag holds a rate in MiB per second; 0 until set, and for "off".
type RateFlag int64

// Set parses s.
func (f *RateFlag) Set(s string) error {
	v, err := ParseRate(s)
	if err == nil {
		*f = RateFlag(v)
	}
	return err
}

// Type names the value in help.
func (f *RateFlag) Type() string { return "rate" }

func (f *RateFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*f), 10) + "MiB/s"
}

// DurationFlag holds a positive duration; 0 until set.
type DurationFlag time.Duration

// Set parses s.
func (f *DurationFlag) Set(s string) error {
	v, err := ParseDuration(s)
	if err == nil {
		*f = DurationFlag(v)
	}
	return err
}

// Type names the value in help.
func (f *DurationFlag) Type() string { return "duration" }

func (f *DurationFlag) String() string {
	if *f == 0 {
		return ""
	}
	return time.Duration(*f).String()
}
