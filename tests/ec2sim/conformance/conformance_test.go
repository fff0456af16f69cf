package conformance_test

import (
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/ec2sim/conformance"
)

func simulator(t *testing.T, opt ec2sim.Options) conformance.Config {
	t.Helper()
	opt.StateDir, opt.GiB = t.TempDir(), 1<<20
	opt.Instances = []ec2sim.Instance{{ID: "i-0123456789abcdef0"}, {ID: "i-0123456789abcdef1"}}
	s, err := ec2sim.New(opt)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.Empty(t, s.Volumes(), "nothing is left behind")
		require.Empty(t, s.Snapshots())
		require.NoError(t, s.Close())
	})
	return conformance.Config{
		Client: ec2.New(ec2.Options{
			BaseEndpoint: aws.String(s.URL()), Region: "us-east-1",
			Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
		}),
		Zone: "us-east-1a", OtherZone: "us-east-1b", InstanceID: "i-0123456789abcdef0", Expendable: "i-0123456789abcdef1",
		Timeout: 20 * time.Second, Poll: 3 * time.Millisecond,
	}
}

func TestImmediate(t *testing.T) {
	conformance.Run(t, simulator(t, ec2sim.Options{}))
}

func TestLaggingAndStale(t *testing.T) {
	r := ec2sim.Range{Min: time.Millisecond, Max: 20 * time.Millisecond}
	conformance.Run(t, simulator(t, ec2sim.Options{
		Seed:          7,
		Lag:           ec2sim.Lag{Create: r, Attach: r, Detach: r, Modify: r, Optimize: ec2sim.Fixed(100 * time.Millisecond), Snapshot: r},
		StaleDescribe: 15 * time.Millisecond, StaleJitter: true,
	}))
}

// TestRealEC2 runs the suite against EC2 with the environment's credentials:
// EBB_EC2_CONFORMANCE=real, EBB_EC2_ZONE, EBB_EC2_INSTANCE, and
// EBB_EC2_OTHER_ZONE if there is one, EBB_EC2_EXPENDABLE if there is an instance to
// terminate. It creates small volumes, for a moment as many as the instance can attach.
func TestRealEC2(t *testing.T) {
	if os.Getenv("EBB_EC2_CONFORMANCE") != "real" {
		t.Skip("set EBB_EC2_CONFORMANCE=real to run against EC2")
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	require.NoError(t, err)
	conformance.Run(t, conformance.Config{
		Client: ec2.NewFromConfig(cfg), Zone: os.Getenv("EBB_EC2_ZONE"),
		OtherZone: os.Getenv("EBB_EC2_OTHER_ZONE"), InstanceID: os.Getenv("EBB_EC2_INSTANCE"), Expendable: os.Getenv("EBB_EC2_EXPENDABLE"),
	})
}
