package simulate

import (
	_ "embed"
	"slices"
)

//go:embed fleet.yaml
var fleetPolicy []byte

// FleetPolicy is the policy document that simulations use when none is given.
func FleetPolicy() []byte { return slices.Clone(fleetPolicy) }
