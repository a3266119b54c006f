"""Reads files wherever they lie: on a disk, or on s3://, gs:// and hdfs://.

A remote file is named by its URI, a str, wherever a local one is by its path;
readers ask sources and folders, which know the difference. Imports errors.
"""
