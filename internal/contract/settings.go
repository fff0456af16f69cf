package contract

import (
	"errors"
	"fmt"
	"time"
)

// NodeHeartbeat is the heartbeat timeout of every node and control activity,
// unless Settings.HeartbeatTimeout says otherwise. An activity that runs longer
// than a moment heartbeats every 5 seconds (internal/heartbeat does it for all
// activities of a worker), so that a node whose power is cut is noticed within
// this time whatever it was doing.
const NodeHeartbeat = 30 * time.Second

// LeastHeartbeat is the shortest heartbeat timeout: twice what activities beat at.
const LeastHeartbeat = 10 * time.Second

// Settings tune one operation. They travel in its input, so that its history
// holds them. Zero fields mean the defaults of WithDefaults.
type Settings struct {
	// NodeTimeout is how long an activity may wait for a node's agent before the
	// operation asks EC2 where the disk is now. Default 2 minutes.
	NodeTimeout time.Duration `json:"nodeTimeoutNanos,omitempty"`
	// HeartbeatTimeout is how soon an activity is missed whose worker, agent or
	// node has died. Default NodeHeartbeat, at least LeastHeartbeat.
	HeartbeatTimeout time.Duration `json:"heartbeatTimeoutNanos,omitempty"`
	// NodePatience is how long an operation waits in all for a node that does
	// not answer before it ends as failed. Default 24 hours.
	NodePatience time.Duration `json:"nodePatienceNanos,omitempty"`
	// StepTimeout bounds a control step with all its retries. Default 1 hour.
	StepTimeout time.Duration `json:"stepTimeoutNanos,omitempty"`
	// ModifyPatience is how long growth waits for EBS to modify a volume before
	// it appends another one instead. Default 3 minutes.
	ModifyPatience time.Duration `json:"modifyPatienceNanos,omitempty"`
	// AttachPatience is how long an attachment may be under way, on or off,
	// before it counts as stuck. Default 3 minutes.
	AttachPatience time.Duration `json:"attachPatienceNanos,omitempty"`
	// UtilizationPercent of a backing's pool that a plan aims at. Default 80.
	UtilizationPercent int `json:"utilizationPercent,omitempty"`
	// MinGrowGiB and MinGrowPercent are the least step of a growth; the greater
	// of both counts. Default 1 GiB and 25 percent.
	MinGrowGiB     int64 `json:"minGrowGiB,omitempty"`
	MinGrowPercent int   `json:"minGrowPercent,omitempty"`
	// CeilingGiB is the greatest backing a growth that nobody asked for by size may
	// lead to. Default: all that the disk can use.
	CeilingGiB int64 `json:"ceilingGiB,omitempty"`
	// FillHorizon is how long a growth should last at the present fill rate.
	// Default 10 minutes.
	FillHorizon time.Duration `json:"fillHorizonNanos,omitempty"`
}

// Validate refuses values that no operation could work with.
func (s Settings) Validate() error {
	if s.NodeTimeout < 0 || s.NodePatience < 0 || s.StepTimeout < 0 || s.ModifyPatience < 0 || s.AttachPatience < 0 || s.FillHorizon < 0 {
		return errors.New("settings: a duration is negative; want 0 (default) or more")
	}
	if s.HeartbeatTimeout != 0 && s.HeartbeatTimeout < LeastHeartbeat {
		return fmt.Errorf("settings: heartbeatTimeoutNanos: want 0 (default) or at least %s", LeastHeartbeat)
	}
	if s.UtilizationPercent != 0 && (s.UtilizationPercent < 10 || s.UtilizationPercent > 95) {
		return errors.New("settings: utilizationPercent: want 10 to 95 (or 0 for the default)")
	}
	if s.CeilingGiB < 0 || s.CeilingGiB > 65536 {
		return errors.New("settings: ceilingGiB: want 1 to 65536 (or 0 for all that the disk can use)")
	}
	if s.MinGrowGiB < 0 || s.MinGrowPercent < 0 || s.MinGrowPercent > 1000 {
		return errors.New("settings: minGrowGiB, minGrowPercent: want 0 (default) or more")
	}
	return nil
}

// WithDefaults fills zero fields.
func (s Settings) WithDefaults() Settings {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&s.NodeTimeout, 2*time.Minute)
	def(&s.HeartbeatTimeout, NodeHeartbeat)
	def(&s.NodePatience, 24*time.Hour)
	def(&s.StepTimeout, time.Hour)
	def(&s.ModifyPatience, 3*time.Minute)
	def(&s.AttachPatience, 3*time.Minute)
	def(&s.FillHorizon, 10*time.Minute)
	if s.UtilizationPercent == 0 {
		s.UtilizationPercent = 80
	}
	if s.MinGrowGiB == 0 {
		s.MinGrowGiB = 1
	}
	if s.MinGrowPercent == 0 {
		s.MinGrowPercent = 25
	}
	return s
}
