package ec2sim

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Options configure a [Server]. Only StateDir is required.
type Options struct {
	// StateDir holds volume files, snapshot files and the JSON state. Two
	// servers must not share one at the same time; a server started later on
	// the same directory continues where the former stopped.
	StateDir string
	// Addr to listen on; 127.0.0.1:0 when empty.
	Addr string
	// Region and AccountID name the account; us-east-1 and 123456789012 when empty.
	Region    string
	AccountID string
	// Zones that exist; the region's a, b and c when empty.
	Zones []string
	// Instances that exist from the start. One that the state directory
	// already knows is left as it is.
	Instances []Instance
	// Seed makes ids and lags repeatable.
	Seed int64
	// Clock drives lags, staleness, throttling and the 24 h rules; a
	// [WarpClock] when nil, so that Advance works.
	Clock Clock
	// Lag of each transition; zero means at once.
	Lag Lag
	// StaleDescribe is how far the describe calls run behind the truth: a
	// change is seen by them only after this long, as with a replica.
	StaleDescribe time.Duration
	// StaleJitter draws the age of every describe answer from
	// [0, StaleDescribe], so answers can also go back in time.
	StaleJitter bool
	// Throttle maps an action ("CreateVolume"), a prefix ("Describe*") or
	// "*" to its token bucket; the most exact entry counts. Off when empty.
	Throttle map[string]Bucket
	// Limits of account, volumes and instance types; zero fields get EC2's values.
	Limits Limits
	// Policy is an IAM policy document: what it does not allow to the caller is
	// refused as UnauthorizedOperation. When empty everything is allowed. See
	// SetPolicy.
	Policy string
	// KMSKeys are the keys that exist (id, ARN or alias). When set, a volume
	// encrypted with another key is accepted and then fails asynchronously,
	// as EBS does it. When empty every key exists.
	KMSKeys []string
	// Plug carries attachments to nodes; nil keeps the books only.
	Plug Plug
	// PlugTimeout bounds one call of the Plug; 30 s when zero.
	PlugTimeout time.Duration
	// BusyRetry is the pause between tries to unplug a busy volume; 1 s when zero.
	BusyRetry time.Duration
	// MaxVolumeGiB is the length volume files are created with (sparse), for
	// plugs whose block device cannot see its file grow; 1024 when zero. A
	// larger volume gets a larger file.
	MaxVolumeGiB int32
	// GiB is the bytes a "GiB" of the API has on disk; 1<<30 when zero.
	// Smaller values make small test volumes.
	GiB int64
	// NoSnapshotData skips copying contents into snapshots and from them.
	NoSnapshotData bool
	// Logger for what the API does not tell; discarded when nil.
	Logger *slog.Logger
}

// Plug attaches volume files to nodes. The server calls it without holding
// locks, one call at a time for each volume, with a deadline it must honour.
// Each method may be called again after success or failure and must then
// bring about (or confirm) the same end state.
type Plug interface {
	// Attach makes path visible in the instance as the volume's device.
	// sizeBytes is the volume's true size; the file may be longer. An error
	// or a missed deadline leaves the attachment "attaching".
	Attach(ctx context.Context, instanceID, volumeID, device, path string, sizeBytes int64) error
	// Detach removes the device; a volume that is not plugged is success. An
	// error leaves the attachment "busy" and the call is repeated later,
	// except for a forced detach, which ignores it.
	Detach(ctx context.Context, instanceID, volumeID string) error
	// Resize tells the node that the volume now has sizeBytes. It is tried
	// five times; then the volume is larger whether the node knows or not.
	Resize(ctx context.Context, instanceID, volumeID string, sizeBytes int64) error
}

// Pauser is implemented by a [Plug] that can stop an instance's writes for the
// moment a snapshot copies the volume's file. Without it the copy of a volume
// in use is not taken at one point in time.
type Pauser interface {
	// Pause stops the instance; resume is called exactly once.
	Pause(ctx context.Context, instanceID string) (resume func(), err error)
}

// Range of a duration, drawn evenly; a fixed one when Max <= Min.
type Range struct{ Min, Max time.Duration }

// Fixed is the Range of exactly d.
func Fixed(d time.Duration) Range { return Range{Min: d, Max: d} }

func (r Range) draw(rng *rand.Rand) time.Duration {
	if r.Max <= r.Min {
		return r.Min
	}
	return r.Min + time.Duration(rng.Int64N(int64(r.Max-r.Min)+1))
}

type rangeJSON struct {
	Min Duration `json:"min,omitempty"`
	Max Duration `json:"max,omitempty"`
}

// MarshalJSON writes {"min":"1s","max":"2s"}.
func (r Range) MarshalJSON() ([]byte, error) {
	return json.Marshal(rangeJSON{Duration(r.Min), Duration(r.Max)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Range) UnmarshalJSON(b []byte) error {
	var j rangeJSON
	err := json.Unmarshal(b, &j)
	r.Min, r.Max = time.Duration(j.Min), time.Duration(j.Max)
	return err
}

// Lag says how long each transition takes.
type Lag struct {
	Create   Range // creating -> available
	Delete   Range // deleting -> gone
	Attach   Range // attaching -> attached, before the Plug is called
	Detach   Range // detaching -> detached, before the Plug is called
	Modify   Range // modifying -> optimizing
	Optimize Range // optimizing -> completed
	Snapshot Range // pending -> completed
}

// Bucket is a token bucket: Burst requests at once, Rate more each second.
type Bucket struct {
	Burst int     `json:"burst"`
	Rate  float64 `json:"rate"`
}

// AttachmentLimit of an instance type. With "shared" network interfaces count
// against Max as well; with "dedicated" only volumes do. The root volume
// counts in both.
type AttachmentLimit struct {
	Type string `json:"type"`
	Max  int    `json:"max"`
}

// Limits of the simulated account.
type Limits struct {
	// Attachments by instance type, added to (and overriding) the built-in table.
	Attachments map[string]AttachmentLimit
	// Modifications per volume in ModificationWindow; 4 in 24 h when zero.
	Modifications      int
	ModificationWindow time.Duration
	// TokenLife is how long a client token is remembered; 24 h when zero.
	TokenLife time.Duration
	// PendingSnapshots of one volume; 5 when zero.
	PendingSnapshots int
	// TagsPerResource; 50 when zero.
	TagsPerResource int
}

func (o *Options) setDefaults() {
	def(&o.Addr, "127.0.0.1:0")
	def(&o.Region, "us-east-1")
	def(&o.AccountID, "123456789012")
	if len(o.Zones) == 0 {
		o.Zones = []string{o.Region + "a", o.Region + "b", o.Region + "c"}
	}
	if o.Clock == nil {
		o.Clock = NewWarpClock()
	}
	def(&o.PlugTimeout, 30*time.Second)
	def(&o.BusyRetry, time.Second)
	def(&o.MaxVolumeGiB, 1024)
	def(&o.GiB, 1<<30)
	def(&o.Limits.Modifications, 4)
	def(&o.Limits.ModificationWindow, 24*time.Hour)
	def(&o.Limits.TokenLife, 24*time.Hour)
	def(&o.Limits.PendingSnapshots, 5)
	def(&o.Limits.TagsPerResource, 50)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
