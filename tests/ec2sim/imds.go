package ec2sim

import (
	"strings"
	"sync"
)

type imdsTokens struct{ mu sync.Mutex }

const imageID = "ami-0ebb00000000ec2f5"

func privateDNSName(instanceID string) string {
	return strings.TrimPrefix(instanceID, "i-") + ".ec2.internal"
}
