package cmd

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// volumeOptions describe an EBS volume; what is not set stays as it was, or is
// EC2's default.
type volumeOptions struct {
	kind       string
	iops       int32
	throughput int32
	encrypted  bool
	kmsKey     string
	tags       []string

	cmd *cobra.Command
}

func (o *volumeOptions) bind(c *cobra.Command) {
	o.cmd = c
	f := c.Flags()
	f.StringVar(&o.kind, "type", "", "EBS volume type, such as gp3")
	f.Int32Var(&o.iops, "iops", 0, "provisioned IOPS")
	f.Int32Var(&o.throughput, "throughput", 0, "provisioned throughput in MiB/s")
	f.BoolVar(&o.encrypted, "encrypted", false, "encrypt the volume")
	f.StringVar(&o.kmsKey, "kms-key", "", "KMS key id or ARN; implies --encrypted")
	f.StringArrayVar(&o.tags, "tag", nil, "tag of the volume as key=value; may be repeated")
}

// spec is the contract's form of the options.
func (o *volumeOptions) spec() (contract.VolumeSpec, error) {
	s := contract.VolumeSpec{Type: o.kind, IOPS: o.iops, ThroughputMiBs: o.throughput, KMSKeyID: o.kmsKey}
	if o.iops < 0 || o.throughput < 0 {
		return s, exit.New(exit.Usage, "--iops and --throughput: want more than 0")
	}
	if o.cmd.Flags().Changed("encrypted") {
		s.Encrypted = &o.encrypted
	}
	if o.kmsKey != "" {
		if s.Encrypted != nil && !*s.Encrypted {
			return s, exit.New(exit.Usage, "--kms-key contradicts --encrypted=false")
		}
		yes := true
		s.Encrypted = &yes
	}
	for _, t := range o.tags {
		key, value, ok := strings.Cut(t, "=")
		if !ok || key == "" {
			return s, exit.New(exit.Usage, "--tag %q: want key=value", t)
		}
		if lower := strings.ToLower(key); strings.HasPrefix(lower, "ebb:") || strings.HasPrefix(lower, "aws:") {
			return s, exit.New(exit.Usage, "--tag %q: tags that begin with ebb: or aws: are not yours to set", t)
		}
		if s.Tags == nil {
			s.Tags = map[string]string{}
		}
		s.Tags[key] = value
	}
	return s, nil
}
