package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/ebb-storage/ebb/internal/contract"
)

// imdsTimeout bounds one question to the metadata service. It answers in a
// millisecond where it exists; where it does not, packets vanish.
const imdsTimeout = 3 * time.Second

// Identity finds out which node this is.
type Identity func(ctx context.Context) (string, error)

// FixedIdentity is a node named by the operator.
func FixedIdentity(node string) Identity {
	return func(context.Context) (string, error) {
		if err := contract.ValidateInstanceID(node); err != nil {
			return "", err
		}
		return node, nil
	}
}

// IMDSIdentity asks the EC2 instance metadata service, version 2 only. The
// environment variable AWS_EC2_METADATA_SERVICE_ENDPOINT moves the service.
func IMDSIdentity() Identity {
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, imdsTimeout)
		defer cancel()
		c := imds.New(imds.Options{EnableFallback: aws.FalseTernary})
		out, err := c.GetMetadata(ctx, &imds.GetMetadataInput{Path: "instance-id"})
		if err != nil {
			var plain *url.Error // without the SDK's own words around it
			if errors.As(err, &plain) {
				err = plain
			}
			return "", fmt.Errorf("instance metadata service: %w", err)
		}
		defer func() { _ = out.Content.Close() }()
		b, err := io.ReadAll(io.LimitReader(out.Content, 64))
		if err != nil {
			return "", fmt.Errorf("instance metadata service: %w", err)
		}
		node := strings.TrimSpace(string(b))
		if err := contract.ValidateInstanceID(node); err != nil {
			return "", fmt.Errorf("instance metadata service: %w", err)
		}
		return node, nil
	}
}

// credentialVars are the environment variables by which AWS credentials reach
// a process.
var credentialVars = []string{
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE",
	"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
	"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
	"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
}

// DropCredentials removes AWS credentials from the process's environment, so
// that neither the agent nor a tool it runs can use them, and returns the
// names of the variables that were set. Call it before anything else.
func DropCredentials(log *slog.Logger) []string {
	var found []string
	for _, name := range credentialVars {
		if _, ok := os.LookupEnv(name); ok {
			found = append(found, name)
			if err := os.Unsetenv(name); err != nil {
				log.Error("cannot remove a credential from the environment", "variable", name, "error", err)
			}
		}
	}
	if len(found) > 0 {
		log.Warn("the node agent needs no AWS credentials and removed those in its environment", "variables", found)
	}
	return found
}
