package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

func (a *app) newPolicy() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Check a policy and see what it says of a disk",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.newPolicyLint(), a.newPolicyExplain(), a.newPolicySchema())
	return c
}

func (a *app) newPolicySchema() *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of a policy, for editors",
		Example: "  ebb policy schema > ebb-policy.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.streams.Out.Write(policy.Schema())
			return err
		},
	}
}

// readPolicy reads a policy from a file, "-" being standard input. What is wrong
// with it is policy.Problems in the error's chain.
func (a *app) readPolicy(file string) (*policy.Policy, error) {
	data, err := a.readFile(file)
	if err != nil {
		return nil, err
	}
	p, err := policy.Load(data)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", file, err)
	}
	return p, nil
}

// policyError is the error of a command that needs a policy and got a bad one.
func policyError(file string, err error) error {
	var ps policy.Problems
	if !errors.As(err, &ps) {
		return err
	}
	return exit.New(exit.Usage, "").Because(err).WithNext("ebb policy lint %s", file)
}

// greatestFile bounds what is read into memory.
const greatestFile = 16 << 20

func (a *app) readFile(file string) ([]byte, error) {
	in := a.streams.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, exit.New(exit.Usage, "").Because(err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, greatestFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", file, err)
	case len(data) > greatestFile:
		return nil, exit.New(exit.Usage, "%s: more than %d MiB", file, greatestFile>>20)
	}
	return data, nil
}
