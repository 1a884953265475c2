"""What is submitted: the sbatch command of a deployment on a site, and the directory that the job reads."""
